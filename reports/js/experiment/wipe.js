// Two pictures on one another, and the line at which the one takes over from the other: dragged by mouse or
// finger on the picture, or moved by the slider's keys.
const Wipe = (() => {
  /** Connect a stage with its slider; returns what puts two pictures { source, name } on it. */
  function create(stage, slider) {
    const divider = Dom.element('span', { class: 'divider', 'aria-hidden': 'true' });
    let over = null;

    function move() {
      const share = Number(slider.value);
      if (over) over.style.clipPath = `inset(0 0 0 ${share}%)`;
      divider.style.left = `${share}%`;
    }

    function follow({ clientX }) {
      const { left, width } = stage.getBoundingClientRect();
      slider.value = (100 * (clientX - left)) / width;
      move();
    }

    slider.addEventListener('input', move);
    stage.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      stage.setPointerCapture(event.pointerId);
      follow(event);
    });
    stage.addEventListener('pointermove', (event) => {
      if (stage.hasPointerCapture(event.pointerId)) follow(event);
    });

    return (left, right) => {
      const picture = ({ source, name }) => Dom.element('img', { src: source, alt: name, draggable: 'false' });
      over = picture(right);
      const label = (side, { title }) => Dom.element('span', { class: `side ${side}`, 'aria-hidden': 'true' }, title);
      stage.replaceChildren(picture(left), over, divider, label('left', left), label('right', right));
      slider.setAttribute('aria-label', `wipe between ${left.name} and ${right.name}`);
      move();
    };
  }

  return { create };
})();
