// A consumer on the AWS SDK for JavaScript: what `consumers.py` does, in Node.
//
//     NODE_PATH=.../node_modules node consumer.cjs ENDPOINT CACHE RECORDS
//
// Needs @aws-sdk/client-dynamodb, @aws-sdk/client-dynamodb-streams and ioredis; `--present` only says whether they are.
"use strict";

const present = () => {
  try {
    return ["@aws-sdk/client-dynamodb", "@aws-sdk/client-dynamodb-streams", "ioredis"].map((name) => require(name));
  } catch {
    return null;
  }
};

const found = present();
if (process.argv[2] === "--present") {
  if (found !== null) {
    const sdk = require("@aws-sdk/client-dynamodb/package.json").version;
    console.log(`Node ${process.versions.node}, SDK ${sdk}`);
  }
  process.exit(0);
}

const [dynamodb, streams, Redis] = found;
const [endpoint, cacheUrl, wanted] = process.argv.slice(2);
const CONCURRENCY = 64;

const writeOf = (record) => {
  const change = record.dynamodb;
  const version = `0-${change.SequenceNumber.padStart(40, "0")}`;
  const condition = {
    ConditionExpression: "attribute_not_exists(#v) OR #v < :v",
    ExpressionAttributeNames: { "#v": "_version" },
    ExpressionAttributeValues: { ":v": { S: version } },
    ReturnValuesOnConditionCheckFailure: "ALL_OLD",
  };
  if (record.eventName === "REMOVE") {
    return new dynamodb.DeleteItemCommand({ TableName: "orders", Key: change.Keys, ...condition });
  }
  const put = { TableName: "orders", Item: { ...change.NewImage, _version: { S: version } }, ...condition };
  if (record.eventName === "MODIFY") {
    return new dynamodb.PutItemCommand(put);
  }
  const check = { TableName: "tombstones", Key: change.Keys, ConditionExpression: "attribute_not_exists(pk)" };
  return new dynamodb.TransactWriteItemsCommand({ TransactItems: [{ ConditionCheck: check }, { Put: put }] });
};

const main = async () => {
  const where = { region: "us-east-1", endpoint };
  const { Agent } = require(endpoint.startsWith("https:") ? "node:https" : "node:http");
  const agent = new Agent({ keepAlive: true, maxSockets: CONCURRENCY });
  const requestHandler = endpoint.startsWith("https:") ? { httpsAgent: agent } : { httpAgent: agent };
  const table = new dynamodb.DynamoDBClient({ ...where, requestHandler });
  const stream = new streams.DynamoDBStreamsClient(where);
  const cache = new Redis(cacheUrl);
  let [done, began, iterator] = [0, null, "us-east-1:0"];
  while (done < Number(wanted)) {
    const page = await stream.send(new streams.GetRecordsCommand({ ShardIterator: iterator, Limit: 1000 }));
    iterator = page.NextShardIterator;
    if (page.Records.length === 0) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      continue;
    }
    began ??= process.cpuUsage();
    const records = page.Records.values();
    const worker = async () => {
      for (const record of records) {
        await table.send(writeOf(record));
        await cache.unlink(`order:${record.dynamodb.Keys.pk.S}`);
      }
    };
    await Promise.all(Array.from({ length: CONCURRENCY }, worker));
    const last = page.Records.at(-1).dynamodb.SequenceNumber;
    await table.send(
      new dynamodb.UpdateItemCommand({
        TableName: "checkpoints",
        Key: { pk: { S: "orders" } },
        UpdateExpression: "SET s = :s",
        ExpressionAttributeValues: { ":s": { S: last } },
      }),
    );
    done += page.Records.length;
  }
  const spent = process.cpuUsage(began);
  cache.disconnect();
  console.log(JSON.stringify({ records: done, microseconds: (spent.user + spent.system) / done }));
  process.exit(0);
};

main();
