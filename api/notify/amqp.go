package notify

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// AMQPConfig says which broker gets the events, and how. Hosts is required.
type AMQPConfig struct {
	Hosts    []string // HOST:PORT of brokers of one cluster; the first that answers is used
	VHost    string   // "": /
	Username string
	Password string
	TLS      *tls.Config // nil: plain TCP

	Exchange string   // "": glance, which is what Glance itself uses
	Topics   []string // nil: notifications
	Durable  bool     // exchange and queues outlive the broker; what is there already stays as it is
}

// heartbeat is how often the broker and we hear of each other.
const heartbeat = 10 * time.Second

// closeTime bounds the good-bye to a broker.
const closeTime = 2 * time.Second

// An AMQP is a Sink in a broker that speaks AMQP 0.9.1, such as RabbitMQ.
type AMQP struct {
	cfg  AMQPConfig
	next int // of cfg.Hosts

	conn     *amqp.Connection // nil: none
	ch       *amqp.Channel
	raw      net.Conn
	declared map[string]bool // routing keys
}

// NewAMQP returns a Sink. It connects when there is something to send.
func NewAMQP(cfg AMQPConfig) *AMQP {
	if cfg.VHost == "" {
		cfg.VHost = "/"
	}
	if cfg.Exchange == "" {
		cfg.Exchange = "glance"
	}
	if cfg.Topics == nil {
		cfg.Topics = []string{"notifications"}
	}
	return &AMQP{cfg: cfg}
}

// Send publishes a message under each topic and waits until the broker has
// confirmed it.
func (a *AMQP) Send(ctx context.Context, m Message) (err error) {
	body, err := json.Marshal(map[string]string{"oslo.version": "2.0", "oslo.message": string(m.Body)})
	if err != nil {
		return &Refused{err}
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	// The library waits for the broker without an end. Cutting the connection
	// is what ends it.
	defer context.AfterFunc(ctx, func() { a.raw.Close() })()
	for _, topic := range a.cfg.Topics {
		if err = a.publish(ctx, topic+"."+strings.ToLower(string(m.Priority)), m, body); err != nil {
			break
		}
	}
	if err != nil {
		a.drop()
		return fmt.Errorf("amqp: publish to exchange %s: %w", a.cfg.Exchange, cause(ctx, err))
	}
	return nil
}

func (a *AMQP) publish(ctx context.Context, key string, m Message, body []byte) error {
	if !a.declared[key] {
		if err := a.declare(key); err != nil {
			return err
		}
		a.declared[key] = true
	}
	done, err := a.ch.PublishWithDeferredConfirmWithContext(ctx, a.cfg.Exchange, key, false, false, amqp.Publishing{
		ContentType: "application/json", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent,
		MessageId: m.ID, Body: body,
	})
	if err != nil {
		return err
	}
	ok, err := done.WaitContext(ctx)
	if err == nil && !ok {
		err = errors.New("the broker did not take the message")
	}
	return err
}

// connect makes sure that there is a connection with a channel that confirms.
func (a *AMQP) connect(ctx context.Context) error {
	if a.conn != nil && !a.conn.IsClosed() && !a.ch.IsClosed() {
		return nil
	}
	a.drop()
	var errs []error
	for range a.cfg.Hosts {
		host := a.cfg.Hosts[a.next%len(a.cfg.Hosts)]
		err := a.dial(ctx, host)
		if err == nil {
			return nil
		}
		a.drop()
		a.next++
		errs = append(errs, fmt.Errorf("amqp: connect to %s: %w", host, cause(ctx, err)))
	}
	return errors.Join(errs...)
}

// dial connects to one broker. Each has an equal share of the time that is
// left, or one that is silent would hide the others.
func (a *AMQP) dial(ctx context.Context, host string) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(heartbeat)
	}
	ctx, cancel := context.WithDeadline(ctx, time.Now().Add(time.Until(deadline)/time.Duration(len(a.cfg.Hosts))))
	defer cancel()
	scheme := "amqp"
	if a.cfg.TLS != nil {
		scheme = "amqps"
	}
	var raw net.Conn
	conn, err := amqp.DialConfig(scheme+"://"+host, amqp.Config{
		SASL:  []amqp.Authentication{&amqp.PlainAuth{Username: a.cfg.Username, Password: a.cfg.Password}},
		Vhost: a.cfg.VHost, TLSClientConfig: a.cfg.TLS, Heartbeat: heartbeat,
		Properties: amqp.Table{"product": "Platter", "connection_name": "platter notifications"},
		Dial: func(network, addr string) (c net.Conn, err error) {
			if raw, err = (&net.Dialer{}).DialContext(ctx, network, addr); err == nil {
				until, _ := ctx.Deadline()
				err = raw.SetDeadline(until) // the library takes it away once it is through
			}
			return raw, err
		},
	})
	if err != nil {
		return err
	}
	a.conn, a.raw = conn, raw
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	if a.ch, err = conn.Channel(); err == nil {
		err = a.ch.Confirm(false)
	}
	a.declared = map[string]bool{}
	return err
}

// declare makes the exchange and a queue, so that nothing is lost while nobody
// listens yet. What others have declared in another way is used as it is.
func (a *AMQP) declare(key string) error {
	err := a.ch.ExchangeDeclare(a.cfg.Exchange, "topic", a.cfg.Durable, false, false, false, nil)
	if differs(err) {
		if err = a.again(); err == nil {
			err = a.ch.ExchangeDeclarePassive(a.cfg.Exchange, "topic", a.cfg.Durable, false, false, false, nil)
		}
	}
	if err != nil {
		return err
	}
	_, err = a.ch.QueueDeclare(key, a.cfg.Durable, false, false, false, nil)
	if differs(err) {
		if err = a.again(); err == nil {
			_, err = a.ch.QueueDeclarePassive(key, a.cfg.Durable, false, false, false, nil)
		}
	}
	if err != nil {
		return err
	}
	return a.ch.QueueBind(key, key, a.cfg.Exchange, false, nil)
}

// differs tells whether something is there already and of another make.
func differs(err error) bool {
	e, ok := errors.AsType[*amqp.Error](err)
	return ok && e.Code == amqp.PreconditionFailed
}

// again opens a channel in place of the one that a refusal has closed.
func (a *AMQP) again() (err error) {
	if a.ch, err = a.conn.Channel(); err == nil {
		err = a.ch.Confirm(false)
	}
	return err
}

// cause is the end of the time, if that is what cut the connection.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w (%v)", ctx.Err(), err)
	}
	return err
}

// drop forgets the connection.
func (a *AMQP) drop() {
	if a.raw != nil {
		a.raw.Close()
	}
	if a.conn != nil {
		a.conn.Close() // its goroutines end
	}
	a.conn, a.ch, a.raw = nil, nil, nil
}

// Close says good-bye to the broker.
func (a *AMQP) Close() error {
	if a.conn == nil {
		return nil
	}
	raw := a.raw
	timer := time.AfterFunc(closeTime, func() { raw.Close() })
	defer timer.Stop()
	err := a.conn.Close()
	a.conn, a.ch, a.raw = nil, nil, nil
	return err
}
