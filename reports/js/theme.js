// Colours and the Plotly template. Owns the scales; takes all other colours from the style sheet, so
// that figures follow light and dark as the page does.
const Theme = (() => {
  // Even steps of CIE lightness (8 each) from mint to navy: perceptually uniform, and safe for
  // colour-blind readers, who tell lightness apart. Low values recede into the page's background.
  const SEQUENTIAL = [
    '#dcf5ee', '#aee3dd', '#7ed0d0', '#51bbc6', '#25a5bb', '#018ead',
    '#09779b', '#1d6084', '#254a68', '#26364a', '#1d2432',
  ];
  // Orange against blue, of equal lightness at equal distance from the middle.
  const DIVERGING = {
    light: ['#874a02', '#ac6622', '#d18848', '#eaba94', '#f1f1ee', '#85d0d4', '#04a8bf', '#0181a4', '#016086'],
    dark: ['#ffcea7', '#eca76e', '#c48249', '#8c613e', '#2b3238', '#26757a', '#119fb5', '#5ac2e8', '#a9defe'],
  };
  // At least 15 apart in CIELAB, also as protanopes and deuteranopes see them (Machado et al., 2009).
  const CATEGORIES = ['#1b7fb5', '#f0a830', '#9c3f87', '#56c4a0', '#c8502a', '#4c4fa8', '#a9c2f5'];
  const HOVER = 170; // pixels that a figure must be high: Plotly drops a hover label that does not fit
  const NAMES = ['ink', 'muted', 'line', 'card', 'accent', 'faint', 'partly', 'slightly'];

  /** The colours in force now, and a template that draws every figure with them. */
  function current() {
    const style = getComputedStyle(document.documentElement);
    const colours = Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    const isDark = style.getPropertyValue('--scheme').trim() === 'dark';
    const sequential = isDark ? [...SEQUENTIAL].reverse() : SEQUENTIAL;
    return {
      ...colours,
      categories: CATEGORIES,
      sequential: scale(sequential),
      reversed: scale([...sequential].reverse()),
      diverging: scale(DIVERGING[isDark ? 'dark' : 'light']),
      template: template(colours, getComputedStyle(document.body).fontFamily),
      widest,
    };
  }

  /** Pixels that the widest of some labels takes; with it, margins are known before Plotly draws. */
  function widest(labels, size = 12) {
    const pen = document.createElement('canvas').getContext('2d');
    pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
    return Math.ceil(Math.max(0, ...labels.map((label) => pen.measureText(label).width)));
  }

  const scale = (stops) => stops.map((colour, place) => [place / (stops.length - 1), colour]);

  function template({ ink, muted, line, card }, family) {
    const axis = {
      gridcolor: line, zerolinecolor: line, linecolor: line, tickcolor: line,
      tickfont: { color: muted, size: 12 }, title: { font: { color: muted, size: 12 } },
      zeroline: false, exponentformat: 'e', fixedrange: true,
    };
    return {
      layout: {
        font: { family, size: 12, color: muted },
        paper_bgcolor: 'rgba(0,0,0,0)',
        plot_bgcolor: 'rgba(0,0,0,0)',
        hoverlabel: { bgcolor: card, bordercolor: line, align: 'left', font: { family, size: 12, color: ink } },
        xaxis: axis, yaxis: axis, dragmode: false, showlegend: false, hovermode: 'closest',
      },
    };
  }

  return { HOVER, current };
})();
