// The numbers that the head and the findings leave to the script, which has their digits and units.
const Head = (() => {
  /** Fill in the numbers of the whole scan, and those beside the findings. */
  function show(data) {
    for (const node of Dom.all('[data-total]')) {
      const value = Statistics.evaluate(node.dataset.total, data.total, data);
      node.textContent = Format.statistic(value, data.statistics.get(node.dataset.total));
      node.title = Format.raw(value);
    }
    for (const node of Dom.all('[data-value]')) {
      const entry = data.statistics.get(node.dataset.statistic) ?? { unit: 'elements' };
      const value = node.dataset.value === '' ? null : Number(node.dataset.value);
      node.textContent = Format.statistic(value, entry);
      node.title = [Format.raw(value), entry.title].filter(Boolean).join(' · ');
    }
  }

  return { show };
})();
