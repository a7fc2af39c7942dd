// The depth of a network: its blocks in order, as places along it. Of very many blocks neighbours share one.
const Depth = (() => {
  const PLACES = 200; // that a figure can tell apart

  /** The places of the blocks that some rows lie in; `at(row)` is the index of a row's place. */
  function of(data, rows) {
    const { names, codes } = data.axes.block;
    const present = new Uint8Array(names.length);
    for (const row of rows) present[codes[row]] = 1;
    const isPresent = new Set(names.filter((_, code) => present[code]));
    const isNetwork = new Set(data.embedded.blocks); // BASE and VAE lie beside the network
    const blocks = data.blocks.filter((name) => isPresent.has(name));
    const network = blocks.filter((name) => isNetwork.has(name));
    const places = divide(blocks, isNetwork, Math.ceil(network.length / PLACES));
    const placeOf = new Map(places.flatMap((place, index) => place.blocks.map((name) => [name, index])));
    const byCode = Int32Array.from(names, (name) => placeOf.get(name) ?? -1);
    return { places, network, at: (row) => byCode[codes[row]] };
  }

  /** Blocks as places: up to `size` neighbours of the network together. */
  function divide(blocks, isNetwork, size) {
    const places = [];
    for (const name of blocks) {
      const last = places.at(-1);
      const isInside = isNetwork.has(name);
      if (isInside && last?.isInside && last.blocks.length < size) last.blocks.push(name);
      else places.push({ blocks: [name], isInside });
    }
    return places.map((place) => ({ ...place, title: titleOf(place.blocks), term: termOf(place.blocks) }));
  }

  const titleOf = (blocks) => (blocks.length === 1 ? blocks[0] : `${blocks[0]} … ${blocks.at(-1)}`);

  /** The selector term of a place; null where the language has no words for it. */
  function termOf(blocks) {
    const [first, last] = [blocks[0], blocks.at(-1)];
    const isPlain = [first, last].every((name) => Selectors.term('block', name) !== null);
    if (blocks.length === 1 || !isPlain) return isPlain ? Selectors.term('block', first) : null;
    return `block:${first}..${last}`;
  }

  return { of };
})();
