// What leaves the page as a file: figures as SVG and PNG, rows as CSV. Nothing is sent anywhere: a file is
// a blob of this page, saved under a name.
const Export = (() => {
  const WIDTH = 960; // pixels of an exported figure; a phone exports what a desktop does
  const SCALE = 2; // pixels of a PNG for each of these
  const MARGIN = 20; // around everything
  const [ABOVE, BELOW] = [68, 44]; // for the title and what the switches say, and for the models' names
  const LABELS = ['part', 'block', 'component', 'kind'];

  /**
   * Buttons that save the section's figure. `draw(theme, width)` gives that figure as it stands, { data,
   * layout, legend }, for another width and other colours.
   */
  function buttons(section, draw) {
    const title = Dom.one('h2', section).textContent;
    const place = Dom.element('p', { class: 'exports' });
    for (const [format, make] of [['SVG', svgBlob], ['PNG', pngBlob]]) {
      const label = `Save “${title}” as ${format}`;
      const button = Dom.element('button', { type: 'button', 'aria-label': label, title: label, 'data-export': format.toLowerCase() }, format);
      button.addEventListener('click', async () => {
        const svg = await svgOf(section, draw);
        save(`${nameOf(section.dataset.section)}.${format.toLowerCase()}`, await make(svg));
      });
      place.append(button);
    }
    Dom.one('h2', section).after(place);
  }

  /** Save rows as CSV, in the order given: the columns of `scan --csv`, as far as the scan measured them. */
  function csv(data, rows) {
    save(`${nameOf('keys')}.csv`, new Blob([table(data, rows)], { type: 'text/csv' }));
  }

  /** The rows as CSV (RFC 4180, lines end in LF): full precision, undefined left empty. */
  function table(data, rows) {
    const names = Array.from(data.statistics.keys());
    const head = ['key', 'key_b', ...LABELS, 'shape', 'dtype_a', 'dtype_b', 'verdict', ...names];
    const lines = Array.from(rows, (row) => {
      const record = data.record([row]);
      const words = [
        data.key(row), data.keyB(row), ...LABELS.map((axis) => data.label(axis, row)), data.shape(row).join('x'),
        data.dtype('a', row), data.dtype('b', row), data.verdicts[data.verdict(row)],
      ];
      const values = names.map((name) => Statistics.evaluate(name, record, data) ?? '');
      return [...words.map(cell), ...values].join(',');
    });
    return [head.join(','), ...lines, ''].join('\n');
  }

  /** A name as a cell. One that a spreadsheet would take for a formula gets an apostrophe before it. */
  function cell(text) {
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  }

  /** A figure as the text of an SVG: light, with its title, what its switches say and the models' names. */
  async function svgOf(section, draw) {
    const theme = lightTheme();
    const figure = draw(theme, WIDTH - 2 * MARGIN);
    const { data, layout } = framed(figure, section, theme);
    const size = { width: layout.width, height: layout.height };
    return sound(await Plotly.toImage({ data, layout }, { format: 'svg', ...size, imageDataOnly: true }));
  }

  /** The colours of the light page, whatever the page's own are; nothing is painted in between. */
  function lightTheme() {
    const root = document.documentElement;
    const before = root.dataset.theme;
    root.dataset.theme = 'light';
    const theme = Theme.current();
    if (before === undefined) delete root.dataset.theme;
    else root.dataset.theme = before;
    return theme;
  }

  /** The figure with room around it for the words that stand beside it in the page. */
  function framed({ data, layout, legend = [] }, section, theme) {
    const { l, r, t, b } = layout.margin;
    const key = legend.length ? 28 : 0;
    const [top, bottom] = [t + ABOVE + key, b + BELOW];
    const text = (its, yshift, font, place) => ({
      text: Format.label(its), xref: 'paper', x: 0, xshift: -l, xanchor: 'left', align: 'left', yref: 'paper', y: place,
      yshift, yanchor: 'middle', showarrow: false, font,
    });
    const width = Math.max(WIDTH, (layout.width ?? 0) + 2 * MARGIN); // a map may be wider than it was asked to be
    const height = layout.height + ABOVE + key + BELOW;
    const small = { size: 12, color: theme.muted };
    const title = Dom.one('h2', section).textContent;
    return {
      data: [...data.map((trace) => ({ ...trace, showlegend: false })), ...legend.map(keyed)],
      layout: {
        template: theme.template, ...layout, width, height,
        margin: { l: l + MARGIN, r: r + MARGIN, t: top, b: bottom },
        paper_bgcolor: theme.card,
        annotations: [
          ...(layout.annotations ?? []),
          text(title, t + key + 44, { size: 18, color: theme.ink }, 1),
          text(switches(section), t + key + 18, small, 1),
          text(Format.shorten(caption(), 140), -b - 24, small, 0),
        ],
        ...(legend.length && {
          showlegend: true,
          legend: {
            orientation: 'h', xref: 'paper', x: 0, xanchor: 'left', yref: 'container', yanchor: 'top',
            y: 1 - (ABOVE - 6) / height, font: small, itemclick: false, itemdoubleclick: false,
          },
        }),
      },
    };
  }

  /** A line of the legend as a trace without points: Plotly's own legend knows traces only. */
  function keyed({ title, colour }) {
    return {
      type: 'scatter', mode: 'markers', x: [null], y: [null], name: Format.label(Format.shorten(title, 28)), showlegend: true,
      marker: { color: colour, size: 9 },
    };
  }

  /** What the section's switches say: "by component · statistic relative change · log scale". */
  function switches(section) {
    const words = Dom.all('.switch', section).map((label) => {
      const list = label.querySelector('select');
      if (list) return `${label.firstChild.textContent.trim()} ${list.selectedOptions[0]?.textContent.trim() ?? ''}`;
      const box = label.querySelector('[type="checkbox"]');
      return box?.checked && !box.disabled ? label.textContent.trim() : '';
    });
    return words.filter(Boolean).join(' · ');
  }

  /** The models, and what is selected of them. */
  function caption() {
    const names = Dom.all('.model h2').map((node) => node.textContent.trim());
    const selection = document.querySelector('#selection:not([hidden]) #selection-text');
    const selected = selection && `selected: ${selection.textContent}`;
    return [names.join(' · '), selected, 'mergescope'].filter(Boolean).join(' — ');
  }

  /** An SVG that parses whatever names it holds: Plotly undoes the escape of a name such as “&foo;”. */
  function sound(svg) {
    const escaped = svg.replace(/&(?!(?:lt|gt|amp|quot|apos|#60|#62);)/g, '&amp;');
    // Not of XML 1.0: control signs, the two last ones of the plane, halves of surrogate pairs
    return escaped.replace(/[\0-\x08\v\f\x0e-\x1f\ufffe\uffff]|\p{Surrogate}/gu, '\ufffd');
  }

  const svgBlob = (svg) => new Blob([svg], { type: 'image/svg+xml' });

  /** The SVG as the browser draws it, on a canvas that no page shows. */
  async function pngBlob(svg) {
    const address = URL.createObjectURL(svgBlob(svg));
    try {
      const image = new Image();
      image.src = address;
      await image.decode();
      const canvas = document.createElement('canvas');
      [canvas.width, canvas.height] = [image.naturalWidth * SCALE, image.naturalHeight * SCALE];
      canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
      return await new Promise((resolve) => { canvas.toBlob(resolve, 'image/png'); });
    } finally {
      URL.revokeObjectURL(address);
    }
  }

  /** A file's name: what it shows and of which models, in letters that every file system takes. */
  function nameOf(what) {
    const names = Dom.all('.model h2').slice(0, 2).map((node) => node.lastChild.textContent.trim().replace(/\.\w+$/, ''));
    return [what, ...names].map((name) => name.replace(/[^\w.-]+/g, '_').slice(0, 60)).join('-');
  }

  /** Hand a blob to the reader as a file. */
  function save(name, blob) {
    const address = URL.createObjectURL(blob);
    Dom.element('a', { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000); // the browser reads it after the click
  }

  return { buttons, csv, table, save, cell };
})();
