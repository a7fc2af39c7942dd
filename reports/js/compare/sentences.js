// What stands out among several scans, in plain sentences with what to select. Says only what sums of each
// scan against A tell: how far, where, and by whom; never how the change of one lies to that of another.
const Sentences = (() => {
  const NAMED = 4; // categories that a sentence names
  const STATISTIC = 'relative_change';
  const number = (value, data) => Format.statistic(value, data.statistics.get(STATISTIC));

  /** Sentences of the view of everything: { text, value, axis, name }; `name` is null where nothing is to select. */
  function make(view, data) {
    const [parts, groups] = ['part', 'group'].map((axis) => Touched.rows(view, axis).map((row) => ({ ...row, axis })));
    return [
      ...sameFiles(data),
      ...extent(view, data),
      ...foremost(groups, data),
      ...alone(parts, groups, data),
      ...untouched(parts, groups, data),
      ...keys(view, data),
    ];
  }

  /** Scans of one file under several names. */
  function sameFiles({ scans }) {
    const byFile = new Map();
    for (const { letter, data } of scans) {
      const { fingerprint } = data.embedded.models.b;
      byFile.set(fingerprint, [...(byFile.get(fingerprint) ?? []), letter]);
    }
    return [...byFile.values()].filter(({ length }) => length > 1).map((letters) => (
      { text: `${Columns.listed(letters)} are one and the same file.`, value: '=' }
    ));
  }

  /** Which moved furthest as a whole, and which least. */
  function extent(view, data) {
    const totals = data.scans.map((scan) => ({ ...scan, value: Statistics.evaluate(STATISTIC, scan.data.total, scan.data) }));
    const known = totals.filter(({ value }) => value !== null).sort((one, other) => other.value - one.value);
    if (!known.length) return [];
    const [first, last] = [known[0], known.at(-1)];
    if (first.value === 0) return [{ text: 'None of them changed anything.', value: '0' }];
    const rest = known.length > 1 ? `, ${last.letter} least: ${last.value ? number(last.value, data) : 'nothing'}` : '';
    const value = number(first.value, data);
    return [{ text: `${first.letter} (${first.name}) moved furthest from A, by ${value} of its norm${rest}.`, value }];
  }

  /** The component that each moved most; one sentence for those that have it in common. */
  function foremost(groups, data) {
    const tops = new Map();
    for (const scan of data.scans) {
      const touched = groups.filter(({ by, values }) => by.includes(scan.place) && values[scan.place] !== null);
      if (!touched.length) continue;
      const top = touched.reduce((best, row) => (row.values[scan.place] > best.values[scan.place] ? row : best));
      tops.set(top, [...(tops.get(top) ?? []), scan]);
    }
    return [...tops].map(([row, scans]) => {
      const how = scans.map(({ letter, place }) => `${number(row.values[place], data)} in ${letter}`);
      const isCommon = scans.length === data.scans.length && scans.length > 1;
      const whose = isCommon ? 'in all of them' : `in ${Columns.listed(scans.map(({ letter }) => letter))}`;
      const more = scans.length > 1 ? `: ${Columns.listed(how)}` : '';
      const value = number(Math.max(...scans.map(({ place }) => row.values[place])), data);
      return { text: `${row.title} moved most ${whose}${more}.`, value, axis: row.axis, name: row.name };
    });
  }

  /** What one of them touched, and no other. Components of a part that it has alone are not named again. */
  function alone(parts, groups, data) {
    if (data.scans.length < 2) return [];
    const isAlone = (place) => ({ by, record }) => by.length === 1 && by[0] === place && record.isComplete;
    return data.scans.flatMap((scan) => {
      const its = parts.filter(isAlone(scan.place));
      const covered = new Set(its.flatMap(({ rows }) => rows));
      const others = groups.filter(isAlone(scan.place)).filter(({ rows }) => !rows.every((row) => covered.has(row)));
      return [its, others].filter(({ length }) => length).map((found) => sentence(`Only ${scan.letter} touched`, found, scan, data));
    });
  }

  function sentence(opening, found, scan, data) {
    const value = Math.max(...found.map(({ values }) => values[scan.place] ?? 0));
    const [{ axis, name }] = found;
    return { text: `${opening} ${named(found)}.`, value: number(value, data), ...(found.length === 1 && { axis, name }) };
  }

  /** What none of them touched, among what all of them compare. */
  function untouched(parts, groups, data) {
    const isStill = ({ by, record }) => !by.length && record.isComplete;
    const its = parts.filter(isStill);
    if (its.length === parts.length) return [];
    const covered = new Set(its.flatMap(({ rows }) => rows));
    const others = groups.filter(isStill).filter(({ rows }) => !rows.every((row) => covered.has(row)));
    const found = [...its, ...others];
    if (!found.length) return [];
    const [{ axis, name }] = found;
    const who = data.scans.length === 2 ? 'Neither of them' : 'None of them';
    return [{ text: `${who} touched ${named(found)}.`, value: '0', ...(found.length === 1 && { axis, name }) }];
  }

  /** How many keys changed in all of them, and in one alone. */
  function keys(view, data) {
    const rows = Array.from(view.rows).map((row) => data.record([row])).filter(({ isComplete }) => isComplete);
    const by = rows.map((record) => record.touchedBy());
    if (!by.length || data.scans.length < 2) return [];
    const all = by.filter(({ length }) => length === data.scans.length).length;
    const own = data.scans.map(({ place, letter }) => [by.filter((its) => its.length === 1 && its[0] === place).length, letter]);
    const words = own.filter(([count]) => count).map(([count, letter]) => `${count.toLocaleString('en')} in ${letter} alone`);
    return [{
      text: `${[`${Format.plural(all, 'key')} of ${by.length.toLocaleString('en')} changed in all of them`, ...words].join(', ')}.`,
      value: Format.statistic(all / by.length, { range: '0 … 1' }),
    }];
  }

  /** "vae", "vae and text_encoder", "attn1, attn2, ff and 3 more". */
  function named(found) {
    const titles = found.slice(0, NAMED).map(({ title }) => title);
    const more = found.length - titles.length;
    return more ? `${titles.join(', ')} and ${more} more` : Columns.listed(titles);
  }

  return { make };
})();
