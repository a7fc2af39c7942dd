// plotly.js, five megabytes that only the figures need: whatever else the page has is there before it.
const Library = (() => {
  let loading;

  /** Resolves once window.Plotly is there, or never will be. */
  const load = () => {
    loading ??= start();
    return loading;
  };

  async function start() {
    await loaded();
    const element = Dom.one('#plotly');
    if (element.hasAttribute('src')) return;
    const source = new TextDecoder().decode(await Packed.inflate(element.textContent));
    element.remove(); // nobody reads it again
    const script = Dom.element('script', {}, source);
    document.head.append(script); // runs it: the page's policy knows its hash
    script.remove();
  }

  /** The end of the page's loading, which waits for a script from plotly's own site, or for its failure. */
  function loaded() {
    if (document.readyState === 'complete') return null;
    return new Promise((resolve) => {
      window.addEventListener('load', resolve, { once: true });
    });
  }

  return { load };
})();
