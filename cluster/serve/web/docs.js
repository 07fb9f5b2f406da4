/** The examples of /docs have the address that the browser knows. */

const here = new URL(".", location.href).href;
for (const each of document.querySelectorAll(".address")) each.textContent = here;
