// Light, dark, or as the system says. Runs before the page is drawn, so that nothing flashes.
'use strict';
(() => {
  const root = document.documentElement;
  const words = ['auto', 'light', 'dark'];
  // Storage may be forbidden; then the choice lasts as long as the page.
  const kept = () => { try { return localStorage.getItem('palisade.theme'); } catch { return null; } };
  const keep = (word) => { try { localStorage.setItem('palisade.theme', word); } catch { /* see above */ } };
  const set = (word) => {
    if (word === 'auto') root.removeAttribute('data-theme'); else root.setAttribute('data-theme', word);
  };
  let word = words.includes(kept()) ? kept() : 'auto';
  set(word);
  document.addEventListener('DOMContentLoaded', () => {
    const button = document.getElementById('theme');
    const show = () => { button.textContent = word[0].toUpperCase() + word.slice(1); };
    show();
    button.addEventListener('click', () => {
      word = words[(words.indexOf(word) + 1) % words.length];
      set(word);
      keep(word);
      show();
    });
  });
})();
