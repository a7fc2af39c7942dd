// What stands out, each sentence joined to the figure that shows it: its button selects the keys, turns the
// figure's switches to the number of the sentence, and leads there. One on the whole model selects nothing.
const Findings = (() => {
  // A figure for every axis that the terms of a selector may be on, the first that the page has.
  const SHOWN_BY = {
    component: [{ section: 'ranking', axis: 'group' }],
    block: [{ section: 'profile' }, { section: 'ranking', axis: 'block' }],
    part: [{ section: 'ranking', axis: 'part' }],
    kind: [{ section: 'ranking', axis: 'kind' }],
    key: [{ section: 'scatter' }],
  };
  const OF_TASKS = /^(task_|dominance|sign_conflict|conflict_|cancellation|support_)/; // measured beside a base
  const OF_ELEMENTS = /^(top_energy_share|max_abs_delta|mean_abs_delta)$/; // told by how single elements moved
  const WHOLE = { cosine: [{ section: 'scatter' }] }; // of the whole model; every other number is ranked
  const BROADEST = ['key', 'component', 'block', 'part', 'kind']; // of a selector of several axes, the first leads

  /**
   * Connect the list of findings in `section`. `choose(selector)` selects in the page, `panels` are its
   * figures, `keys` is the section to lead to where no figure shows it.
   */
  function create(section, data, { panels, choose, keys }) {
    for (const item of Dom.all('.findings li', section)) {
      const button = item.querySelector('button');
      if (!button) continue;
      const { statistic } = Dom.one('.value', item).dataset;
      const { selector = '' } = button.dataset;
      button.addEventListener('click', async () => {
        const place = placeOf(data, panels, selector, statistic);
        place?.panel.turn({ ...place.switches, statistic });
        const chosen = choose(selector);
        Following.lead(place?.panel.section ?? keys);
        await chosen;
      });
    }
  }

  /** The figure that shows a finding, and where its switches stand for it; none if the page has no such figure. */
  function placeOf(data, panels, selector, statistic) {
    const terms = selector ? Selectors.compile(data, selector).terms : [];
    const axes = terms.filter(({ excludes }) => !excludes).map(({ axis }) => axis);
    const axis = BROADEST.find((name) => axes.includes(name)) ?? (selector ? 'part' : 'component');
    const wanted = [
      ...(OF_TASKS.test(statistic) ? [{ section: 'tasks', points: axis === 'block' ? 'block' : 'group' }] : []),
      ...(OF_ELEMENTS.test(statistic) ? [{ section: 'histogram' }] : []),
      ...(axes.includes('block') && axes.includes('component') ? [{ section: 'map' }] : []),
      ...((!selector && WHOLE[statistic]) || SHOWN_BY[axis]),
    ];
    for (const { section, ...switches } of wanted) {
      const panel = panels.find((its) => its.section.dataset.section === section);
      if (panel) return { panel, switches };
    }
    return null;
  }

  return { create };
})();
