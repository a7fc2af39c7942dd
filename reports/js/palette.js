// Which groups of keys have a colour of their own: one rule, so that a component looks alike in all figures.
const Palette = (() => {
  const OWN = 6; // groups with a colour of their own; the others share one

  /**
   * The selected rows by their name on an axis as { name, title, rows, colour }: those that moved most,
   * and last one group of all others, which has no name.
   */
  function groups({ data, rows: selected }, axis, theme) {
    const { names, codes } = data.axes[axis];
    const members = new Map();
    for (const row of selected) {
      if (!members.has(codes[row])) members.set(codes[row], { name: names[codes[row]], rows: [], energy: 0 });
      const group = members.get(codes[row]);
      group.rows.push(row);
      group.energy += data.sums.sum_dd[row];
    }
    const ranked = [...members.values()].sort((one, other) => byEnergy(one, other) || (one.name < other.name ? -1 : 1));
    const titles = View.shortNames(ranked.map(({ name }) => name));
    const own = ranked.slice(0, ranked.length > OWN + 1 ? OWN : OWN + 1);
    const others = ranked.slice(own.length).flatMap(({ rows }) => rows);
    const named = own.map(({ name, rows }, place) => (
      { name, title: titles.get(name), rows, colour: theme.categories[place] }
    ));
    return others.length ? [...named, { name: null, title: 'others', rows: others, colour: theme.muted }] : named;
  }

  /** The largest Σd² first; sums beyond fp64 are alike. */
  const byEnergy = (one, other) => (one.energy === other.energy ? 0 : other.energy - one.energy);

  return { groups };
})();
