// Alphas of many blocks as one curve that a pointer draws; the sliders below say and do the same.
const PlannerCurve = (() => {
  /** By block, the alphas on the straight line between two [place, alpha]. */
  function line(blocks, one, other) {
    const [[first, start], [last, end]] = one[0] <= other[0] ? [one, other] : [other, one];
    const at = (place) => (first === last ? end : start + ((end - start) * (place - first)) / (last - first));
    return Object.fromEntries(blocks.slice(first, last + 1).map((block, place) => (
      [block, Number(at(first + place).toFixed(4))]
    )));
  }

  /** Fill `place` with a column a run of blocks: behind it how much it differs, on it its alpha. */
  function create(place, runs, { most, set }) {
    const columns = runs.map(({ title, change }) => {
      const [whole, mark] = [Dom.element('i', { class: 'whole' }), Dom.element('i', { class: 'mark' })];
      whole.style.height = `${(100 * change) / most}%`;
      return { mark, node: Dom.element('span', { title }, whole, mark) };
    });
    place.hidden = false;
    place.replaceChildren(...columns.map(({ node }) => node));
    const places = runs.map((_, at) => at);
    const draw = (one, other) => set(Object.fromEntries(Object.entries(line(places, one, other)).flatMap(([at, alpha]) => (
      runs[at].blocks.map((block) => [block, alpha])
    ))));
    let last = null;

    /** Where a pointer stands: the run's place and the alpha, in steps of 0.01. */
    function under(event) {
      const { left, top, width, height } = place.getBoundingClientRect();
      const at = Math.floor(((event.clientX - left) / width) * runs.length);
      const alpha = 1 - (event.clientY - top) / height;
      return [clamp(at, runs.length - 1), Math.round(100 * clamp(alpha, 1)) / 100];
    }

    place.addEventListener('pointerdown', (event) => {
      place.setPointerCapture(event.pointerId);
      last = under(event);
      draw(last, last);
    });
    place.addEventListener('pointermove', (event) => {
      if (!last) return;
      const next = under(event);
      draw(last, next); // a fast pointer skips blocks
      last = next;
    });
    for (const name of ['pointerup', 'pointercancel']) place.addEventListener(name, () => { last = null; });
    return {
      show(alphas) {
        columns.forEach(({ mark }, at) => { mark.style.bottom = `${100 * clamp(alphas[at], 1)}%`; });
      },
    };
  }

  const clamp = (value, most) => Math.min(Math.max(value, 0), most);

  return { create, line };
})();
