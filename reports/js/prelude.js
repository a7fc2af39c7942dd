// Runs before plotly.js, which writes style elements and style attributes while it draws. The page's
// policy forbids both to markup; a script may have them by the page's nonce and by the style object.
(() => {
  'use strict';
  const { nonce } = document.querySelector('style');
  const create = document.createElement;
  document.createElement = function createElement(name, options) {
    const element = create.call(this, name, options);
    if (element instanceof HTMLStyleElement) element.nonce = nonce;
    return element;
  };
  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function setAttribute(name, value) {
    if (name === 'style') this.style.cssText = value;
    else set.call(this, name, value);
  };
})();
