// What a merge of some selections would be: `window.mergescope.predict`.
const Predict = (() => {
  const FIELDS = ['norm', 'distance_a', 'distance_b', 'cosine_a', 'cosine_b'];

  /**
   * The merged model as a whole: its norm, and its distance and cosine to A and to B. `entries` are
   * [selector, alpha]; alphas start at 0 and later entries win. Over all counted keys, and those that
   * a selector names beside them.
   */
  function predict(data, select, entries) {
    const alphas = new Float64Array(data.size);
    const isIn = Uint8Array.from(data.isCounted);
    for (const [selector, alpha] of entries) {
      for (const row of select(selector)) {
        alphas[row] = alpha;
        isIn[row] = 1;
      }
    }
    const { whole } = ClosedForm.outlook(data, alphas, { isIn });
    return Object.fromEntries(FIELDS.map((name) => [name, whole[name]]));
  }

  return { predict };
})();
