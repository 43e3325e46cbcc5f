// Posts one payment to the fund service through the generated client: main URL TOKEN.
import { Configuration, MerchantsApi, OrdersApi } from "./client/index";

declare const process: { argv: string[] };

async function main(url: string, token: string): Promise<void> {
  const configuration = new Configuration({ basePath: url, accessToken: token });
  await new MerchantsApi(configuration).createMerchant({
    merchantRequest: { id: "generated-ts", name: "Generated", currency: "CNY" },
  });
  const order = await new OrdersApi(configuration).postPayment({
    payment: { merchant: "generated-ts", orderNo: "1", amount: 9007199254740991, currency: "CNY", channel: "simulator" },
  });
  console.log(order.state, order.amount);
}

void main(process.argv[2], process.argv[3]);
