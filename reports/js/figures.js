// The figures of the page, in one table: a section's name and the function that draws it from a view.
// A figure is { data, layout, label, note, pick } for Plotly, or { empty } where nothing can be drawn.
const FIGURES = [
  { section: 'ranking', draw: Ranking.draw },
  { section: 'map', draw: HeatMap.draw },
  { section: 'scatter', draw: Scatter.draw },
  { section: 'profile', draw: Profile.draw },
  { section: 'treemap', draw: Treemap.draw },
  { section: 'histogram', draw: Histogram.draw },
  { section: 'tasks', draw: Tasks.draw },
];
