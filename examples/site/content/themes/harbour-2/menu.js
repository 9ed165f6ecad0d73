document.querySelector('h1').addEventListener('click', () => location.assign('/home'));
