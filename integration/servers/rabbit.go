package servers

import (
	"fmt"
	"path/filepath"

	"github.com/seed-478a8fee/platter/integration/port"
)

// RabbitMQ is a message broker with one user, an administrator.
type RabbitMQ struct {
	Address  string // HOST:PORT of AMQP 0.9.1
	User     string
	Password string
	Process  *Process
}

// rabbitServer is the broker's own script. The one in the path changes to a
// user of the system, with that user's files.
const rabbitServer = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// StartRabbitMQ starts a broker. Erlang's name server, which it needs, is one
// of its own, and ends with it.
func StartRabbitMQ(t TB) *RabbitMQ {
	t.Helper()
	need(t, rabbitServer, "epmd")
	dir := tempDir(t, "rabbit")
	amqp, names, dist := port.Free(t), port.Free(t), port.Free(t)
	r := &RabbitMQ{Address: fmt.Sprintf("127.0.0.1:%d", amqp), User: "glance", Password: "of-the-broker"}
	write(t, filepath.Join(dir, ".erlang.cookie"), "platter")
	write(t, filepath.Join(dir, "rabbitmq.conf"), fmt.Sprintf("listeners.tcp.1 = %s\ndefault_user = %s\ndefault_pass = %s\nloopback_users = none\n",
		r.Address, r.User, r.Password))
	write(t, filepath.Join(dir, "plugins"), "[].\n")
	env := []string{
		"HOME=" + dir, fmt.Sprintf("ERL_EPMD_PORT=%d", names), "ERL_EPMD_ADDRESS=127.0.0.1",
		fmt.Sprintf("RABBITMQ_NODENAME=platter%d@localhost", names), fmt.Sprintf("RABBITMQ_DIST_PORT=%d", dist),
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(dir, "mnesia"), "RABBITMQ_LOG_BASE=" + filepath.Join(dir, "log"), "RABBITMQ_LOGS=-",
		"RABBITMQ_CONFIG_FILE=" + filepath.Join(dir, "rabbitmq.conf"), "RABBITMQ_ADVANCED_CONFIG_FILE=" + filepath.Join(dir, "none"),
		"RABBITMQ_CONF_ENV_FILE=" + filepath.Join(dir, "none"), "RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "plugins"),
		"RABBITMQ_PID_FILE=" + filepath.Join(dir, "pid"), "RABBITMQ_GENERATED_CONFIG_DIR=" + filepath.Join(dir, "generated"),
		"RUNNING_UNDER_SYSTEMD=true", // or the broker would be a child of the process that is ended
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
	}
	launch(t, &Process{Name: "epmd", env: env, ready: answersTCP(names), line: []string{"epmd", "-address", "127.0.0.1", "-port", fmt.Sprint(names)}}, dir)
	r.Process = launch(t, &Process{Name: "rabbitmq-server", env: env, ready: answersTCP(amqp), line: []string{rabbitServer}}, dir)
	return r
}
