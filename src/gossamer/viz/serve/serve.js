// @ts-check
/* Runs last in the page of `gossamer serve`: prompts and cuts go to the server, circuits come back. */

/** @param {PageData} data @returns {Source} */
function serverSource(data) {
  const token = new URLSearchParams(location.search).get("token") ?? "";
  return {
    prompts: [],
    canCut: () => true,
    async look({ prompt, cuts }) {
      const edges = cuts.map((cut) => [...cut].map((edge) => edge.split(",").map(Number)));
      const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
      const response = await fetch("api/look", { method: "POST", headers, body: JSON.stringify({ prompt, cuts: edges }) });
      const found = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
      if (!response.ok) throw new Error(found.error);
      const views = found.panels.map((/** @type {PackedCircuit} */ panel) => circuitsOf(panel).at(0));
      return { views, next: found.next, notes: cutNotes(data, cuts) };
    },
  };
}

/** What is cut, in words. @param {PageData} data @param {Set<string>[]} cuts */
function cutNotes(data, cuts) {
  const counted = (/** @type {number} */ n, /** @type {string} */ what) => (n ? [`${n} ${what}${n === 1 ? "" : "s"}`] : []);
  return data.panels.flatMap(({ title }, i) => {
    const heads = [...cuts[i]].filter((cut) => cut.split(",").length === 2).length, edges = cuts[i].size - heads;
    return heads + edges ? [`${title}: ${[...counted(edges, "edge"), ...counted(heads, "head")].join(" and ")} cut.`] : [];
  });
}

{
  /** @type {PageData} */
  const data = JSON.parse(byId("data").textContent ?? "");
  startPage(data, serverSource(data));
}
