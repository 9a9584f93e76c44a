/**
 * Rules for the imports that are left when the types are gone; the layers are in .dependency-cruiser.cjs.
 *
 * @type {import("dependency-cruiser").IConfiguration}
 */

/** What gives a module the world: Node's own modules and every library except the two that src-shared may use. */
const IMPURE =
  "^(?:node:|(?:assert|crypto|events|fs|os|path|stream|timers|worker_threads)(?:$|/))|node_modules/(?!valibot/|@scure/)";

module.exports = {
  forbidden: [
    {
      name: "no-circular",
      comment: "a cycle has no lower half: one of its modules does two things",
      severity: "error",
      from: {},
      to: { circular: true },
    },
    {
      name: "machines-reach-no-world",
      comment: "nothing that a machine imports, however far, may be Node or a library that does something",
      severity: "error",
      from: { path: "-machine[.]ts$" },
      to: { reachable: true, path: IMPURE },
    },
  ],
  options: { ...require("./.dependency-cruiser.cjs").options, tsPreCompilationDeps: false },
};
