// Several scans of one A, row by row: the union of their keys, in the shape in which selectors and views
// know one scan. Owns which key of which scan stands where; every number comes from its own scan.
const Scans = (() => {
  const AXES = ['part', 'block', 'component', 'group', 'kind'];
  const [ABSENT, COMPARED, TOUCHED] = [0, 1, 2]; // what a scan did with a key; touched: more than rounding differs

  /**
   * The keys of all scans. `named` are { data, letter, name } in the order of the page's columns. A key has
   * the labels of the first scan that holds it, so that it stands in one category on the whole page.
   */
  function align(named) {
    const { keys, holders } = union(named);
    const scans = named.map((its, place) => ({ ...its, place, ...places(its.data, keys) }));
    const size = holders.length;
    const all = Uint32Array.from({ length: size }, (_, row) => row);
    const owner = (row) => scans[holders[row]];
    const of = (method, ...words) => (row) => owner(row).data[method](...words, owner(row).own[row]);
    const isCounted = Uint8Array.from(all, (row) => owner(row).data.isCounted[owner(row).own[row]]);
    const axes = Object.fromEntries(AXES.map((axis) => [axis, coded(all, of('label', axis))]));
    const names = [...keys.keys()];
    const blocks = [...new Set(scans.flatMap(({ data }) => data.embedded.blocks))];
    return {
      scans, size, all, axes, isCounted,
      counted: all.filter((row) => isCounted[row]),
      embedded: { blocks },
      blocks: Data.networkOrder(blocks, axes.block.names),
      statistics: scans[0].data.statistics,
      key: (row) => names[row],
      sums: { sum_dd: Float64Array.from(all, (row) => energy(scans, row)) },
      label: (axis, row) => axes[axis].names[axes[axis].codes[row]],
      shape: of('shape'),
      dtype: (side, row) => of('dtype', side)(row),
      record: (rows) => new Together(scans, rows),
    };
  }

  /** Every key by name with its row, and for every row the first scan that has it. */
  function union(named) {
    const keys = new Map();
    const holders = [];
    named.forEach(({ data }, place) => {
      for (const row of data.all) {
        const key = data.key(row);
        if (keys.has(key)) continue;
        keys.set(key, holders.length);
        holders.push(place);
      }
    });
    return { keys, holders };
  }

  /** For every row of the union the scan's own row, or −1, and whether the scan compares and touched it. */
  function places(data, keys) {
    const own = new Int32Array(keys.size).fill(-1);
    const state = new Uint8Array(keys.size).fill(ABSENT);
    const changed = data.verdicts.indexOf('changed');
    for (const row of data.all) {
      const place = keys.get(data.key(row));
      own[place] = row;
      state[place] = data.verdict(row) === changed ? TOUCHED : COMPARED;
    }
    return { own, state };
  }

  /** Σd² of a row in the scan that moved it furthest: what orders categories by how much they matter to any. */
  function energy(scans, row) {
    return Math.max(...scans.map(({ own, data }) => (own[row] < 0 ? 0 : data.sums.sum_dd[own[row]])));
  }

  /** Labels as codes, as the page's data holds them. */
  function coded(all, label) {
    const index = new Map();
    const codes = Array.from(all, (row) => {
      const name = label(row);
      if (!index.has(name)) index.set(name, index.size);
      return index.get(name);
    });
    return { names: [...index.keys()], codes };
  }

  /** Some rows in every scan: what was measured there, each on its own. Adds a scan up when it is asked for. */
  class Together {
    #scans;
    #records = [];

    constructor(scans, rows) {
      this.#scans = scans;
      this.rows = rows;
    }

    /** What one scan measured of the rows; null where it holds none of them. */
    of(place) {
      if (this.#records[place] === undefined) {
        const { own, data } = this.#scans[place];
        const held = Array.from(this.rows, (row) => own[row]).filter((row) => row >= 0);
        this.#records[place] = held.length ? data.record(held) : null;
      }
      return this.#records[place];
    }

    /** A statistic of the rows in one scan; null where it is undefined there. */
    value(place, statistic) {
      const record = this.of(place);
      return record && Statistics.evaluate(statistic, record, this.#scans[place].data);
    }

    /** A statistic in every scan. */
    values(statistic) {
      return this.#scans.map(({ place }) => this.value(place, statistic));
    }

    /** How many of the rows a scan compares, and how many of these it touched. */
    keys(place) {
      const { state } = this.#scans[place];
      let [compared, touched] = [0, 0];
      for (const row of this.rows) {
        compared += state[row] !== ABSENT;
        touched += state[row] === TOUCHED;
      }
      return { compared, touched };
    }

    /** The places of the scans that touched some of the rows. */
    touchedBy() {
      return this.#scans.filter(({ state }) => this.rows.some((row) => state[row] === TOUCHED)).map(({ place }) => place);
    }

    /** Whether every scan compares all of the rows: only then can it be said that none but one touched them. */
    get isComplete() {
      return this.#scans.every(({ state }) => this.rows.every((row) => state[row] !== ABSENT));
    }
  }

  /** What a view of all scans shows, as a view of one of them: its own rows under its own numbers. */
  function viewOf(view, { data, own }) {
    const mine = (rows) => Uint32Array.from(Array.from(rows, (row) => own[row]).filter((row) => row >= 0));
    const rows = mine(view.rows);
    const selected = new Uint8Array(data.size);
    for (const row of rows) selected[row] = 1;
    return {
      data, rows, text: view.text, record: data.record(rows),
      isSelected: (row) => selected[row] === 1, around: (axes) => mine(view.around(axes)),
    };
  }

  return { align, viewOf };
})();
