// @ts-check
/* Runs last: read the page's one block of data and begin. */
{
  /** @type {PageData} */
  const data = JSON.parse(byId("data").textContent ?? "");
  startPage(data, data.kind === "addition" ? additionSource(data) : storedSource(data));
}
