# run-swift.py DIR PROGRAM CONF: runs a server of Swift whose swift.conf and
# rings are in DIR; by itself it would look in /etc/swift before it reads CONF.
# run-swift.py DIR rings ACCOUNT CONTAINER OBJECT: makes rings of one device,
# whose servers listen on these ports.
import os
import runpy
import shutil
import sys

from swift.common import utils

directory, program, *args = sys.argv[1:]
utils.set_swift_dir(directory)
if program == "rings":
    from swift.common.ring import RingBuilder
    for name, port in zip(("account", "container", "object"), map(int, args)):
        ring = RingBuilder(4, 1, 0)
        ring.add_dev({"id": 0, "region": 1, "zone": 1, "device": "d1", "weight": 1, "meta": "", "ip": "127.0.0.1", "port": port,
                      "replication_ip": "127.0.0.1", "replication_port": port})
        ring.rebalance()
        ring.get_ring().save(os.path.join(directory, name + ".ring.gz"))
else:
    sys.argv = [program, *args]
    runpy.run_path(shutil.which(program), run_name="__main__")
