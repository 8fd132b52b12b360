// Uses the types that openapi-typescript has generated into holdfast.d.ts. The argument is the address of a service.
import createClient from "openapi-fetch";
import type { components, paths } from "./holdfast.js";

const client = createClient<paths>({ baseUrl: process.argv[2] });

const added = await client.POST("/products", {
  body: { name: "Mug", description: "", price: 19.99, stock: 5 },
});
if (!added.data) throw new Error(JSON.stringify(added.error));
const id: number = added.data.id;

const placed = await client.POST("/orders", {
  params: { header: { "Idempotency-Key": "from-typescript" } },
  body: { products: [{ product_id: id, quantity: 2 }] },
});
if (placed.data?.total_price !== 39.98) throw new Error(JSON.stringify(placed));

const refused = await client.POST("/orders", { body: { products: [{ product_id: id, quantity: 9 }] } });
const problem = refused.error;
if (problem?.type !== "/problems/insufficient-stock") throw new Error(JSON.stringify(refused));
// The compiler knows now which of all problems this is, and that it has lines.
const typed: components["schemas"]["InsufficientStockProblem"] = problem;
for (const line of typed.errors) {
  const available: number | undefined = line.available;
  console.log(`${line.product_id}: ${line.requested} requested, ${available} available`);
}
