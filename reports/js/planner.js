// The planner: a plan that controls change, and what a merge of it would be. Owns the plan, its history, and
// when what is drawn again; the parts of the section draw themselves from the plan.
const Planner = (() => {
  const PAUSE = 600; // milliseconds: moves of one control without a longer pause are one step of the history
  const SETTLED = 80; // milliseconds without a move after which the command line follows
  const LONGEST = 200; // steps of the history

  /** Bring the section to life. `view()` is what the page shows, `tell(text)` selects in it. */
  function create(section, data, { view, tell }) {
    const history = [];
    let plan = Plan.DEFAULT;
    let last = { origin: '', time: -Infinity };
    let [frame, timer] = [0, 0];

    /** Take a plan that a reader made with the control `origin`. */
    function change(next, origin = 'blocks') {
      const now = performance.now();
      if (origin !== last.origin || now - last.time > PAUSE) history.push(plan);
      if (history.length > LONGEST) history.shift();
      last = { origin, time: now };
      take(next);
      State.changed();
    }

    function take(next) {
      plan = next;
      frame ||= requestAnimationFrame(draw);
    }

    function draw() {
      frame = 0;
      const { alphas, problem } = Weights.alphas(data, plan);
      const outcome = alphas ? PlannerOutcome.of(data, alphas, plan) : null;
      Dom.one('.planner-problem', section).textContent = problem ?? '';
      for (const part of parts) part.show(plan, outcome);
      PlannerOutcome.show(section, data, outcome);
      Dom.one('[name="undo"]', section).disabled = !history.length;
      Dom.one('[name="reset"]', section).disabled = Plan.write(data, plan) === '';
      clearTimeout(timer);
      timer = setTimeout(output.show, SETTLED);
    }

    const its = { change, plan: () => plan, choose: tell, selection: () => view().text };
    const parts = [
      PlannerBlocks.create(section, data, its),
      PlannerSwitches.create(section, data, its),
      PlannerGuide.create(section, data, its),
      menus(section, data, its),
    ];
    const output = PlannerOutput.create(section, data, { plan: its.plan, replace: (next) => change(next, 'recipe') });
    Dom.one('[name="reset"]', section).addEventListener('click', () => change(Plan.DEFAULT, 'reset'));
    Dom.one('[name="undo"]', section).addEventListener('click', () => {
      take(history.pop() ?? Plan.DEFAULT);
      last.origin = '';
      State.changed();
    });
    State.register('plan', { get: () => Plan.write(data, plan), set: (text) => take(Plan.read(data, text)) });
    draw();
    output.show();
  }

  /** The menus of presets and of the output's dtype. */
  function menus(section, data, { change, plan }) {
    const [preset, dtype] = ['preset', 'dtype'].map((name) => Dom.one(`[name="${name}"]`, section));
    const presets = data.embedded.planner?.presets ?? [];
    Dom.one('.presets', section).hidden = !presets.length;
    preset.replaceChildren(
      Dom.element('option', { value: '' }, 'by hand'),
      ...presets.map(({ name, meaning }) => Dom.element('option', { value: name }, `${name} · ${meaning}`)),
    );
    preset.addEventListener('change', () => change(Plan.edit(plan(), {
      preset: preset.value || undefined, weights: preset.value ? undefined : Plan.weights(data, plan()), budget: undefined,
    }), 'preset'));
    dtype.addEventListener('change', () => change(Plan.edit(plan(), { dtype: dtype.value || undefined }), 'dtype'));
    return {
      show(its) {
        preset.value = its.preset ?? '';
        dtype.value = its.dtype ?? '';
      },
    };
  }

  return { create };
})();
