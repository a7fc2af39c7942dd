// What all pages do alike: a selection in words with its message and its place in the address, and figures
// that follow the window, the scheme and the print.
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

  /** Follow the reader's typing, links within the page, and what changes around it. `target` of a link: where it leads. */
  function listen({ tell, drawing, target }) {
    let timer;
    const later = (work) => {
      clearTimeout(timer);
      timer = setTimeout(work, PAUSE);
    };
    const input = Dom.one('#selector');
    input.addEventListener('input', () => later(() => {
      tell(input.value);
      State.changed();
    }));
    for (const link of Dom.all('a[href^="#"]')) {
      link.addEventListener('click', (event) => {
        event.preventDefault(); // the fragment of the address holds what the page shows
        Findings.lead(target(Dom.one(link.getAttribute('href'))));
      });
    }
    window.addEventListener('resize', () => later(drawing.redraw));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawing.redraw);
    // Paper is white and narrow: figures are drawn for it for as long as the print takes.
    const paper = (isOn) => () => {
      document.documentElement.toggleAttribute('data-paper', isOn);
      drawing.redrawNow();
    };
    window.addEventListener('beforeprint', paper(true));
    window.addEventListener('afterprint', paper(false));
  }

  return { create, listen };
})();
