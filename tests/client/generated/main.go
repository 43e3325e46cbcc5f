// Posts one payment to the fund service through the generated client: main URL TOKEN.
package main

import (
	"context"
	"fmt"
	"os"

	client "example.org/client"
)

func main() {
	configuration := client.NewConfiguration()
	configuration.Servers = client.ServerConfigurations{{URL: os.Args[1]}}
	configuration.AddDefaultHeader("Authorization", "Bearer "+os.Args[2])
	api := client.NewAPIClient(configuration)
	merchant := client.NewMerchantRequest("generated-go", "Generated", "CNY")
	if _, _, err := api.MerchantsAPI.CreateMerchant(context.Background()).MerchantRequest(*merchant).Execute(); err != nil {
		panic(err)
	}
	payment := client.NewPayment("1", "generated-go", 9007199254740991, "CNY", "simulator")
	order, _, err := api.OrdersAPI.PostPayment(context.Background()).Payment(*payment).Execute()
	if err != nil {
		panic(err)
	}
	fmt.Println(order.State, order.Amount)
}
