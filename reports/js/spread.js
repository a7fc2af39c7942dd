// What a histogram of |d| says about where a change sits: analyzer/spread.py, step by step.
const Spread = (() => {
  const BINS = 256;
  const LOWEST_EXPONENT = -64; // two bins to an octave of |d|, from 2^-64 to 2^64
  const [STEEPEST, FLATTEST, STEPS] = [500, 1e-4, 5];

  /** The edges of a bin, squared: the first bin begins at 0, the last has no end. */
  function squaredEdges(index) {
    const edge = (place) => ((place % 2 ? 1.5 : 1) * 2 ** (LOWEST_EXPONENT + Math.floor(place / 2))) ** 2;
    return [index > 0 ? edge(index) : 0, index < BINS - 1 ? edge(index + 1) : Infinity];
  }

  /**
   * Σd² over the `count` elements that changed most; null where fp64 overflowed. Exact but for the bin in
   * which the count ends.
   */
  function topEnergy({ first, counts, energies }, count, largest) {
    const sum = Sums.accumulator();
    let left = count;
    for (let place = counts.length - 1; place >= 0; place -= 1) {
      const [held, energy] = [counts[place], energies[place]];
      if (!Number.isFinite(energy)) return null;
      if (left <= 0) break;
      if (held > left) {
        const [low, high] = squaredEdges(first + place);
        sum.add(energy * shareOfTop(left / held, energy / held, low, Math.min(high, largest ** 2)));
        break;
      }
      sum.add(energy);
      left -= held;
    }
    return sum.value();
  }

  /** The share of a bin's Σd² that its largest elements hold, given the mean of d² and its limits. */
  function shareOfTop(fraction, mean, low, high) {
    if (high === Infinity || !(low < mean && mean < high)) return fraction;
    const k = steepness((mean - low) / (high - low));
    if (!(Math.abs(k) < STEEPEST * (1 - 1e-9))) return fraction;
    let partial = fraction - (fraction * fraction) / 2;
    if (Math.abs(k) >= FLATTEST) {
      const whole = Math.expm1(k);
      const begin = clip(Math.log1p((1 - fraction) * whole) / k, 0, 1); // where the largest elements begin
      partial = (Math.exp(k) * (1 - 1 / k) - Math.exp(k * begin) * (begin - 1 / k)) / whole;
    }
    return (low * fraction + (high - low) * partial) / mean;
  }

  /**
   * The k for which the density e^(kt) on 0 … 1 has this mean: Newton's method on 1/(1 − e^−k) − 1/k, from the
   * inverse of the Langevin function by Cohen, 1991.
   */
  function steepness(mean) {
    const x = 2 * mean - 1;
    let k = clip((2 * x * (3 - x * x)) / (1 - x * x), -STEEPEST, STEEPEST);
    for (let step = 0; step < STEPS; step += 1) {
      const isFlat = Math.abs(k) < FLATTEST;
      const [p, q] = [1 / -Math.expm1(-k), 1 / k];
      const [found, slope] = isFlat ? [0.5 + k / 12, 1 / 12] : [p - q, q * q - p * (p - 1)];
      k = clip(k - (found - mean) / slope, -STEEPEST, STEEPEST);
    }
    return k;
  }

  const clip = (value, low, high) => Math.min(Math.max(value, low), high);

  return { LOWEST_EXPONENT, topEnergy };
})();
