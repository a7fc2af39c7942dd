// A selection in words, with its message and its place in the address: what pages with a table of keys do alike.
const Selecting = (() => {
  const PAUSE = 150; // milliseconds without a key stroke before a selector takes effect

  /**
   * Connect the page's selector. `show(text)` shows a selection, or throws why the text is none; `current()`
   * is the text that is shown; `refused(text)` is told of a text that is none, and null before each new one.
   */
  function create(data, { show, current, refused = () => {} }) {
    const [message, input] = [Dom.one('#selector-message'), Dom.one('#selector')];

    /** Show a selection, or say why the text is none and leave the page as it is. */
    async function tell(text) {
      refused(null);
      try {
        const shown = show(text.trim());
        message.textContent = '';
        input.removeAttribute('aria-invalid');
        await shown;
      } catch (error) {
        if (!(error instanceof Selectors.SelectorError)) throw error;
        message.textContent = error.message;
        input.setAttribute('aria-invalid', 'true');
        refused(text.trim());
      }
    }

    function choose(text) {
      input.value = text;
      State.changed();
      return tell(text);
    }

    function pick({ axes, terms }) {
      // A name with a comma in it has no selector; no label that a scan writes is of that kind.
      if (!terms.includes(null)) choose(Selectors.withTerms(data, current(), axes, terms));
    }

    function register() {
      State.register('select', {
        get: current,
        set: (text) => {
          input.value = text;
          return tell(text);
        },
      });
    }

    return { tell, choose, pick, register };
  }

  /** Follow the reader's typing, and what every page follows. `target` of a link: where it leads. */
  function listen({ tell, drawing, target }) {
    let timer;
    const input = Dom.one('#selector');
    input.addEventListener('input', () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        tell(input.value);
        State.changed();
      }, PAUSE);
    });
    Following.listen({ drawing, target });
  }

  return { create, listen };
})();
