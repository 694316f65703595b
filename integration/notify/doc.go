// Package notify tests the events of a gateway with a real RabbitMQ, the real
// oslo.messaging that listens to it, and a real Glance that sends the same.
package notify
