# run-keystone.py CONF PORT PASSWORD REGION: fills Keystone's database if it is
# new, and serves on a loopback port. All in one process, since importing
# Keystone takes longer than the rest.
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

conf, port, password, region = sys.argv[1:]
sys.argv = ["keystone", "--config-file", conf]

from keystone.server import wsgi  # noqa: E402

application = wsgi.initialize_public_application()

from keystone.cmd import bootstrap  # noqa: E402
from keystone.common.sql import upgrades  # noqa: E402

url = "http://127.0.0.1:%s/v3" % port
if upgrades.get_db_version() is None:
    upgrades.offline_sync_database_to_version()
    first = bootstrap.Bootstrapper()
    first.admin_password, first.admin_username, first.project_name, first.admin_role_name = password, "admin", "admin", "admin"
    first.service_name, first.region_id = "keystone", region
    first.admin_url = first.internal_url = first.public_url = url
    first.immutable_roles = True
    first.bootstrap()


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass


make_server("127.0.0.1", int(port), application, server_class=Server, handler_class=Handler).serve_forever()
