// What the page carries deflated (RFC 1950), as base64 in an element that no browser runs or draws.
const Packed = (() => {
  /** The bytes of such a text. */
  async function inflate(text) {
    if (!window.DecompressionStream) throw new Error('this page needs a browser of 2023 or later');
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream('deflate'));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function bytes(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const signs = atob(text);
    const values = new Uint8Array(signs.length);
    for (let place = 0; place < values.length; place += 1) values[place] = signs.charCodeAt(place);
    return values;
  }

  return { inflate };
})();
