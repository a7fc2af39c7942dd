// Names beside a figure as buttons for a pointer: Plotly's own names hear no clicks. Whoever has none
// finds the same choices in the text under the figure.
const Labels = (() => {
  /** Listen for a figure; `current()` is the one that is drawn, whose `labels(x, y)` gives what lies there. */
  function listen(place, current, pick) {
    const under = ({ clientX, clientY }) => {
      const { left, top } = place.getBoundingClientRect();
      return current()?.labels?.(clientX - left + place.scrollLeft, clientY - top + place.scrollTop) ?? null;
    };
    place.addEventListener('mousemove', (event) => {
      const label = under(event);
      place.classList.toggle('on-label', label !== null);
      if (label) place.setAttribute('title', label.title);
      else place.removeAttribute('title');
    });
    place.addEventListener('click', (event) => {
      const label = under(event);
      if (label) pick({ axes: label.axes, terms: label.terms() });
    });
  }

  return { listen };
})();
