// The page of an experiment at work: what is drawn, and who draws again when a reader changes something.
const ExperimentPage = (() => {
  /** Bring the page to life; `window.mergescope` comes last, for those who wait for it. */
  async function start() {
    const text = new TextDecoder().decode(await Packed.inflate(Dom.one('#experiment').textContent));
    const data = Experiment.of(JSON.parse(text));
    const section = (name) => Dom.one(`[data-section="${name}"]`);
    const numbers = Numbers.create(section('numbers'), data);
    let drawing = null; // none before the page is as its address says

    function changed() {
      numbers.draw(grid.measured());
      drawing?.redraw();
    }
    const grid = Grid.create(section('grid'), data, { changed });
    const dialog = document.querySelector('#viewer');
    const viewer = dialog && Viewer.create(dialog, Dom.one('table', section('grid')), data, { order: grid.order });
    const view = () => ({ data, measured: grid.measured() });
    const pick = ({ place, at }) => viewer?.look(place, at);
    const foresight = section('foresight');

    function foretold(its, options, surroundings) {
      Forest.show(Dom.one('.forest', foresight), data, options, choose);
      return Foresight.draw(its, options, surroundings);
    }

    /** Show a statistic in the scatter, as if it were chosen in the switch above. */
    function choose(statistic) {
      const control = Dom.one('[name=statistic]', foresight);
      control.value = statistic;
      control.dispatchEvent(new Event('change'));
      Dom.all('[aria-pressed=true]', Dom.one('.forest', foresight))[0]?.focus();
    }

    const panels = [
      Panel.create(section('landing'), Landing.draw, { view, pick }),
      Panel.create(foresight, foretold, { view, pick }),
    ];
    for (const button of Dom.all('[data-selector]')) {
      const column = data.columns.find(({ selector }) => selector === button.dataset.selector);
      button.addEventListener('click', () => viewer.look(column.place, 0));
    }
    for (const button of Dom.all('[data-section-shown]')) {
      button.addEventListener('click', () => Following.lead(section(button.dataset.sectionShown)));
    }
    numbers.draw(grid.measured());
    await State.restore();
    drawing = Drawing.of(panels);
    Following.listen({ drawing, target: (node) => node.closest('section') });
    await drawing.redraw();
    window.mergescope = { experiment: data.document, look: viewer?.look, csv: () => Numbers.csv(data), isDrawn: drawing.isDone };
  }

  return { start };
})();

ExperimentPage.start();
