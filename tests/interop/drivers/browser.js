// Headless Chromium, driven over JSON lines: node browser.js CHROMIUM [trusting]; a trusting one loads pages with any certificate.
// Commands: {"op": "goto", "url": …}, {"op": "run", "script": …}. {"op": "route", "url": …, "path": …} answers a
// request with a file, {"op": "cookies", "cookies": …} sets cookies, {"op": "login", …} answers a site that asks for a
// password. A page tells what happens with report(event, fields).
const { chromium } = require("playwright-core");
const report = (event, fields = {}) => process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-quic"];

const main = async () => {
  const browser = await chromium.launch({ executablePath: process.argv[2], headless: true, args });
  const page = await browser.newPage({ ignoreHTTPSErrors: process.argv[3] === "trusting" });
  page.on("pageerror", (error) => report("page_error", { message: String(error) }));
  page.on("console", (entry) => report("console", { level: entry.type(), text: entry.text(), url: entry.location().url }));
  await page.exposeFunction("report", report);
  const commands = {
    goto: async ({ url }) => report("loaded", { status: (await page.goto(url))?.status() ?? null }),
    run: async ({ script }) => report("result", { value: (await page.evaluate(script)) ?? null }),
    route: async ({ url, path }) => page.route(url, (route) => route.fulfill({ path })),
    login: async (credentials) => page.context().setHTTPCredentials(credentials),
    cookies: async ({ cookies }) => page.context().addCookies(cookies),
    screenshot: async ({ path }) => report("result", { value: (await page.screenshot({ path })) && path }),
  };
  report("ready");
  for await (const line of require("readline").createInterface({ input: process.stdin })) {
    const { op, ...fields } = JSON.parse(line);
    await commands[op](fields).catch((error) => report("page_error", { message: String(error) }));
  }
  await browser.close();
};
main();
