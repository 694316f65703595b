# run-keystone.py CONF PORT PASSWORD REGION: fills Keystone's database if it is
# new, and serves on a loopback port. All in one program, since importing
# Keystone takes longer than the rest.
import os
import sys
import traceback
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

conf, port, password, region = sys.argv[1:]
os.environ["OS_KEYSTONE_CONFIG_FILES"] = conf
sys.argv = ["keystone"]

import keystone.server  # noqa: E402
from keystone.cmd import bootstrap  # noqa: E402
from keystone.common.sql import upgrades  # noqa: E402
from keystone.server import wsgi  # noqa: E402


def fill():
    keystone.server.configure(config_files=[conf])
    if upgrades.get_db_version() is not None:
        return
    upgrades.offline_sync_database_to_version()
    first = bootstrap.Bootstrapper()
    first.admin_username, first.admin_password = "admin", password
    first.project_name, first.admin_role_name = "admin", "admin"
    first.service_name, first.region_id = "keystone", region
    first.public_url = first.internal_url = first.admin_url = "http://127.0.0.1:%s/v3" % port
    first.bootstrap()


# Keystone can be configured only once in a process.
child = os.fork()
if child == 0:
    try:
        fill()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
if os.waitpid(child, 0)[1] != 0:
    sys.exit("the database could not be filled")


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass


application = wsgi.initialize_public_application()
make_server("127.0.0.1", int(port), application, server_class=Server, handler_class=Handler).serve_forever()
