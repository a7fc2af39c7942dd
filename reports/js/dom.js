// Elements of the page. Owns the one rule of safety: text enters the page only as textContent, so a
// name out of a stranger's file is never markup.
const Dom = (() => {
  /** A new element with attributes and children; a string child becomes text. */
  function element(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
    node.append(...children);
    return node;
  }

  /** The one element of the page that `selector` names. */
  function one(selector, root = document) {
    const node = root.querySelector(selector);
    if (!node) throw new Error(`the page has no ${selector}`);
    return node;
  }

  return { element, one, all: (selector, root = document) => [...root.querySelectorAll(selector)] };
})();
