// How much of a merge's step outlives rounding to the output's dtype: analyzer/prediction/survival.py, step by
// step. Of A + k·d an element keeps its step where |k·d| is at least half a spacing of the output.
const Survival = (() => {
  const BINS = 256; // of |d|; those of steps end before
  const [LOWEST_EXPONENT, LOWEST_STEP] = [-64, -32];
  const GRID = 0.1; // how much less than a power of two's bin all bins below hold, if steps are its multiples
  const MOST_MULTIPLES = 64; // beyond them a grid is as good as continuous
  const STEEPEST = 12; // power by which energy grows with the step's size
  const FLAT = 1e-6;
  const DTYPES = { fp16: 'F16', bf16: 'BF16', fp32: 'F32', fp8_e4m3: 'F8_E4M3', fp8_e5m2: 'F8_E5M2' };

  const PLAIN = edgesFrom(LOWEST_EXPONENT);
  PLAIN.lows[0] = 0;
  PLAIN.highs[BINS - 1] = Infinity;
  const STEPS = edgesFrom(LOWEST_STEP);

  /** The edges of all bins, two to an octave. */
  function edgesFrom(lowest) {
    const edge = (place) => (place % 2 ? 1.5 : 1) * 2 ** (lowest + Math.floor(place / 2));
    const lows = Float64Array.from({ length: BINS }, (_, place) => edge(place));
    const highs = Float64Array.from({ length: BINS }, (_, place) => edge(place + 1));
    return { lows, highs };
  }

  const known = new WeakMap();

  /**
   * `share(row, factor, dtype)`: the share of Σ(k·d)² that rounding leaves, in 0 … 1. null without a step, and
   * where the steps were not measured or the page does not hold them. `dtype` is the output's, as a
   * safetensors file names it; '' is A's own.
   */
  function of(data) {
    if (!known.has(data)) known.set(data, { share: sharer(data), isKnown: 'steps' in data.changes });
    return known.get(data);
  }

  function sharer(data) {
    const { plain, steps, e4m3_steps } = data.changes;
    const formats = new Map(Object.entries(data.embedded.planner?.formats ?? {}));
    if (!steps) return () => null;
    const [ofPlain, ofSteps, ofCoarse] = [tail(plain, PLAIN), tail(steps, STEPS), tail(e4m3_steps, STEPS)];
    return (row, factor, dtype) => {
      const stored = formats.get(data.dtype('a', row));
      const written = dtype ? formats.get(dtype) : stored;
      if (!factor || !Number.isFinite(factor) || !stored || !written) return null;
      const size = Math.abs(factor);
      if ((dtype || data.dtype('a', row)) === 'F8_E4M3') return ofCoarse(row, 0.5 / size);
      const share = ofSteps(row, 2 ** (stored[0] - written[0] - 1) / size);
      if (share === null || written[1] <= stored[1]) return share;
      const reached = ofPlain(row, written[1] / 2 / size);
      return reached === null ? null : Math.min(share, reached);
    };
  }

  /** By row, the share of a histogram's energy that lies at `threshold` or above it; null of none. */
  function tail({ first, offsets, energies }, { lows, highs }) {
    const above = new Float64Array(energies.length + 1); // in this bin and those behind it
    const units = new Float64Array(first.length).fill(NaN);

    function prepare(row) {
      units[row] = unit(row);
      const end = offsets[row + 1];
      const running = Sums.accumulator();
      for (let place = end - 1; place >= offsets[row]; place -= 1) {
        running.add(energies[place]);
        above[place] = running.value();
      }
    }

    /** The power of two of which all steps are multiples, but for few; 0 if there is none. */
    function unit(row) {
      let [below, found] = [0, 0];
      for (let place = offsets[row]; place < offsets[row + 1]; place += 1) {
        const index = first[row] + place - offsets[row];
        // a power of two begins the longer half of its octave, the even bin
        if (index % 2 === 0 && below < GRID * energies[place]) found = lows[index];
        below += energies[place];
      }
      return found;
    }

    return (row, threshold) => {
      if (Number.isNaN(units[row])) prepare(row);
      const [start, end] = [offsets[row], offsets[row + 1]];
      const total = start < end ? above[start] : 0;
      if (!(total > 0 && total < Infinity)) return null;
      const shift = first[row] - start; // from a place to its bin's index
      let place = start;
      for (let last = end; place < last;) { // the first bin that begins at the threshold or behind it
        const middle = (place + last) >> 1;
        if (lows[middle + shift] < threshold) place = middle + 1;
        else last = middle;
      }
      let found = place < end ? above[place] : 0;
      const cut = place - 1;
      if (cut >= start && threshold < highs[cut + shift]) {
        const bin = (at) => ({ low: lows[at + shift], high: highs[at + shift], energy: energies[at] });
        const around = [cut - 1, cut, cut + 1].filter((at) => at >= start && at < end).map(bin);
        found += energies[cut] * shareOfBin(around, bin(cut), units[row], threshold);
      }
      return Math.min(found / total, 1);
    };
  }

  /** The share of a bin's energy from the threshold on: of the multiples in it, or of a smooth density. */
  function shareOfBin(around, { low, high }, unit, threshold) {
    if (unit && high / unit <= MOST_MULTIPLES) {
      let [whole, beyond] = [0, 0];
      for (let m = Math.ceil(low / unit); m < Math.ceil(high / unit); m += 1) {
        whole += m * m;
        if (m * unit >= threshold) beyond += m * m;
      }
      return whole ? beyond / whole : 0;
    }
    if (low === 0 || high === Infinity) return 0.5;
    const power = powerAbout(around);
    if (Math.abs(power) < FLAT) return Math.log(high / threshold) / Math.log(high / low);
    const [at, begin] = [(threshold / high) ** power, (low / high) ** power]; // so that no power overflows
    return (1 - at) / (1 - begin);
  }

  /** The power of the size by which Σd² grows about a bin, from the densities of it and its neighbours. */
  function powerAbout(bins) {
    const around = bins.filter(({ low, high, energy }) => energy > 0 && low > 0 && high < Infinity);
    if (around.length < 2) return 0;
    const [one, other] = [around[0], around.at(-1)];
    const density = ({ low, high, energy }) => Math.log(energy / Math.log(high / low));
    const distance = Math.log((other.high * other.low) / (one.high * one.low)) / 2;
    return Math.min(Math.max((density(other) - density(one)) / distance, -STEEPEST), STEEPEST);
  }

  return { DTYPES, of };
})();
