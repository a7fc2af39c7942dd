// Numbers as people read them. Owns digits and units; undefined is an em dash, never 0.
const Format = (() => {
  const UNDEFINED = '—';
  const COMPACT = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 }); // costs much to make
  const isDefined = (value) => value !== null && value !== undefined && !Number.isNaN(value);

  /** Three digits: 0.301, 12.3, 1,234, 1.2e-7. */
  function number(value) {
    if (!isDefined(value)) return UNDEFINED;
    if (value === 0) return '0';
    const size = Math.abs(value);
    const sign = value < 0 ? '−' : '';
    if (size < 1e-3 || size >= 1e6) return sign + size.toExponential(1).replace('e+', 'e');
    return sign + (size >= 999.5 ? Math.round(size).toLocaleString('en') : size.toPrecision(3));
  }

  /** A count of elements: 9,216 or 63.4 M. */
  function count(value) {
    if (!isDefined(value)) return UNDEFINED;
    if (value < 1e5) return Math.round(value).toLocaleString('en');
    return COMPACT.format(value).replace(/\D$/, ' $&');
  }

  /** A share of a whole; what is nearly nothing or nearly all does not read as 0 or 100 %. */
  function share(value) {
    if (!isDefined(value)) return UNDEFINED;
    if (value > 0 && value < 0.001) return '< 0.1 %';
    if (value < 1 && value > 0.999) return '> 99.9 %';
    return `${Number((100 * value).toFixed(1))} %`;
  }

  /** Four digits; next to 1 the distance from it, since 1.0000 would hide a change. */
  function cosine(value) {
    if (!isDefined(value)) return UNDEFINED;
    if (value < 1 && value > 0.99995) return `1 − ${(1 - value).toExponential(1)}`;
    return value.toFixed(4).replace('-', '−');
  }

  /** A statistic's value; `statistic` is its entry in the embedded table. */
  function statistic(value, { unit, range }) {
    if (range === '−1 … 1') return cosine(value);
    if (unit === 'elements' || (range === '1 …' && Number.isInteger(value))) return count(value);
    return isShare(range) ? share(value) : number(value);
  }

  /** Whether values of this range are shares of a whole. */
  const isShare = (range) => /^0(\.01)? … 1$/.test(range);

  /** Every digit, for those who hover. */
  const raw = (value) => (isDefined(value) ? String(value) : 'undefined');

  /** Ticks of a logarithmic axis from `low` to `high`: the densest of a few patterns with at most `room`. */
  function logTicks(low, high, room) {
    const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const powers = Array.from({ length: last - first + 1 }, (_, place) => first + place);
    const isInside = (tick) => tick >= low * 0.999 && tick <= high * 1.001;
    const patterns = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1, 3], [1]].map((steps) => (
      powers.flatMap((power) => steps.map((step) => Number(`${step}e${power}`))).filter(isInside)
    ));
    const whole = patterns.at(-1);
    const every = Math.ceil(whole.length / room);
    const tickvals = patterns.find(({ length }) => length <= room) ?? whole.filter((_, place) => place % every === 0);
    const text = (tick) => (tick < 1e-3 || tick >= 1e6 ? tick.toExponential(0).replace('+', '') : String(tick));
    return { tickvals, ticktext: tickvals.map(text) };
  }

  /** "1 key", "31 keys". */
  const plural = (number, noun) => `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;

  /** Text that Plotly shall draw as it stands: Plotly reads a few HTML tags and entities in labels. */
  const label = (text) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');

  /** A long name without its middle; both of its ends tell names apart. */
  function shorten(text, length) {
    if (text.length <= length) return text;
    const head = Math.floor((length - 1) / 2);
    return `${text.slice(0, head)}…${text.slice(text.length - (length - 1 - head))}`;
  }

  /** The lines that hovering a group shows: its name, the statistic drawn, and the usual ones. */
  function hover(title, record, data, shown) {
    const names = [shown, 'relative_change', 'cosine', 'changed_fraction', 'energy_share', 'numel'];
    const lines = [...new Set(names)].map((name) => {
      const entry = data.statistics.get(name);
      return `${entry.title}  ${statistic(Statistics.evaluate(name, record, data), entry)}`;
    });
    return [shorten(title, 80), ...lines].map(label).join('<br>');
  }

  return { UNDEFINED, number, count, share, isShare, statistic, raw, logTicks, plural, label, shorten, hover };
})();
