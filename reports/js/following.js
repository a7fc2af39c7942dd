// What all pages do alike: links within the page, and figures that follow the window, the scheme and the print.
const Following = (() => {
  const PAUSE = 150; // milliseconds without a change of the window before figures are drawn for it

  /** Follow links within the page, and what changes around it. `target` of a link: the section where it leads. */
  function listen({ drawing, target }) {
    let timer;
    for (const link of Dom.all('a[href^="#"]')) {
      link.addEventListener('click', (event) => {
        event.preventDefault(); // the fragment of the address holds what the page shows
        lead(target(Dom.one(link.getAttribute('href'))));
      });
    }
    window.addEventListener('resize', () => {
      clearTimeout(timer);
      timer = setTimeout(drawing.redraw, PAUSE);
    });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawing.redraw);
    // Paper is white and narrow: figures are drawn for it for as long as the print takes.
    const paper = (isOn) => () => {
      document.documentElement.toggleAttribute('data-paper', isOn);
      drawing.redrawNow();
    };
    window.addEventListener('beforeprint', paper(true));
    window.addEventListener('afterprint', paper(false));
  }

  /** Bring a section into sight and the keyboard to it. */
  function lead(section) {
    const title = Dom.one('h2', section);
    title.tabIndex = -1;
    title.focus({ preventScroll: true });
    section.scrollIntoView({ block: 'start' });
  }

  return { listen, lead };
})();
