// When the figures are drawn: those in sight at once, the others one after the other, so that the page
// answers in between. Knows when, not what.
const Drawing = (() => {
  /** The figures of `panels`. */
  function of(panels) {
    const waiting = new Set();
    let working = null;

    /** Draw all of them again; resolves once all are drawn. */
    function redraw() {
      for (const panel of panels) waiting.add(panel);
      working ??= work().finally(() => { working = null; });
      return working;
    }

    /** All of them now, before this returns: paper does not wait. */
    function redrawNow() {
      waiting.clear();
      return Promise.all(panels.map((panel) => panel.redraw()));
    }

    async function work() {
      await Library.load();
      await Promise.all(taken(panels.filter((panel) => panel.isInSight())));
      while (waiting.size) {
        await pause();
        const inSight = panels.find((panel) => waiting.has(panel) && panel.isInSight());
        await Promise.all(taken([inSight ?? [...waiting][0]]));
      }
    }

    const taken = (some) => some.filter((panel) => waiting.delete(panel)).map((panel) => panel.redraw());

    return { redraw, redrawNow, isDone: () => working === null };
  }

  /** A moment for the reader: for what was clicked meanwhile, and for the page to be shown. */
  const pause = () => new Promise((resolve) => { setTimeout(resolve); });

  return { of };
})();
