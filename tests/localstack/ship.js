// Ships `COUNT` log records with the OpenTelemetry SDK for JavaScript: `node ship.js URL TOPIC COUNT` (OTLP/HTTP, JSON, chunked).
const dns = require("node:dns");
const { LoggerProvider, BatchLogRecordProcessor } = require("@opentelemetry/sdk-logs");
const { OTLPLogExporter } = require("@opentelemetry/exporter-logs-otlp-http");
const { resourceFromAttributes } = require("@opentelemetry/resources");

// LocalStack's names end with .localhost, which Node asks the resolver for.
const lookup = dns.lookup;
dns.lookup = (name, options, done) => lookup(name.endsWith(".localhost") ? "127.0.0.1" : name, options, done);

const [url, topic, count] = process.argv.slice(2);
const exporter = new OTLPLogExporter({ url: `${url}/v1/logs`, headers: { "x-tidelog-topic": topic } });
const provider = new LoggerProvider({
  resource: resourceFromAttributes({ "service.name": "shop-js" }),
  processors: [new BatchLogRecordProcessor({ exporter, maxExportBatchSize: 100, maxQueueSize: 100000 })],
});
const logger = provider.getLogger("tidelog-test");
for (let number = 0; number < Number(count); number++) {
  logger.emit({ severityText: "INFO", body: `order ${number}`, attributes: { order: number } });
}
provider.shutdown().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
