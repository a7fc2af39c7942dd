// The data document of an experiment as the page asks of it. Computes nothing: every number is the document's.
const Experiment = (() => {
  /** What is embedded: the document, and how effects, views and statistics are worded. */
  function of({ experiment, effects, views, statistics }) {
    const summaries = index(experiment.summary, ({ selector, measure }) => [selector, measure]);
    const rows = index(experiment.rows, ({ selector, seed }) => [selector, seed]);
    const parents = index(experiment.parents, ({ seed }) => [seed]);
    const seeds = experiment.conditions.seeds.length ? experiment.conditions.seeds : [null];
    const nothing = { mean: null, low: null, high: null, n: 0 };
    return {
      document: experiment,
      seeds,
      views,
      effects: new Map(Object.entries(effects)),
      statistics: new Map(Object.entries(statistics)),
      /** The categories in the order of the document; A and B have the places 0 and 1 before them. */
      columns: experiment.columns.map((column, place) => ({ ...column, place: place + 2 })),
      summary: (selector, measure) => summaries.get(name([selector, measure])) ?? nothing,
      row: (selector, seed) => rows.get(name([selector, seed])) ?? null,
      parent: (seed) => parents.get(name([seed])) ?? null,
      /** The values of a measure by seed, without those that have none. */
      values: (selector, measure) => (
        seeds.map((seed) => rows.get(name([selector, seed]))?.[measure] ?? null).filter((value) => value !== null)
      ),
      correlations: experiment.correlations,
    };
  }

  const name = (parts) => JSON.stringify(parts);
  const index = (entries, parts) => new Map(entries.map((entry) => [name(parts(entry)), entry]));

  /** An effect's name in words: "toward B", "toward B, in pixels". */
  function title(data, effect) {
    const view = data.views.find(({ prefix }) => prefix && effect.startsWith(prefix));
    const entry = data.effects.get(view ? effect.slice(view.prefix.length) : effect);
    if (!entry) return effect;
    return view ? `${entry.title}, in ${view.title}` : entry.title;
  }

  /** Two decimals, all that a few seeds carry; undefined is a dash. */
  function number(value) {
    if (value === null || value === undefined) return Format.UNDEFINED;
    const text = Math.abs(value).toFixed(2);
    return value < 0 && Number(text) !== 0 ? `−${text}` : text;
  }

  /** Half the width of a mean's interval as "± 0.05"; '' where there is none. */
  const reach = ({ low, high }) => (low === null || high === null ? '' : `± ${number((high - low) / 2)}`);

  /** "1 category", "8 categories". */
  const categories = (count) => (count === 1 ? '1 category' : `${count.toLocaleString('en')} categories`);

  return { of, title, number, reach, categories };
})();
