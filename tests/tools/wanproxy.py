#!/usr/bin/env python3
"""A TCP relay that behaves like a long fat link, for measuring on one machine.

  wanproxy.py --listen 127.0.0.1:2200 --to 127.0.0.1:2222 --rtt-ms 100 --mbit 1000 [--cut-after-bytes N] [--stall-after-bytes N]

Every byte is delivered rtt/2 after it was read, at no more than --mbit megabits per second in each
direction; the link itself buffers without limit, so what bounds a transfer is the window of the
protocol above it, as on a real long link. --cut-after-bytes resets the connection after N bytes in
either direction (a cable pulled); --stall-after-bytes stops delivering without closing (a peer gone
silent). Every connection counts for itself. Port 0 listens on a
free port. Prints `listening on HOST:PORT, to …` with the real port, then `cut after N bytes` or
`stalled after N bytes` the moment it happens, and one line per closed connection: bytes each way.
"""
import argparse, asyncio, socket, struct, sys, time

CHUNK = 65536


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--listen", required=True)
    p.add_argument("--to", required=True)
    p.add_argument("--rtt-ms", type=float, default=0)
    p.add_argument("--mbit", type=float, default=0, help="0: no limit")
    p.add_argument("--cut-after-bytes", type=int, default=0)
    p.add_argument("--stall-after-bytes", type=int, default=0)
    return p.parse_args()


async def one_way(reader, writer, args, count, way):
    delay = args.rtt_ms / 2000
    per_byte = 8 / (args.mbit * 1e6) if args.mbit else 0
    queue = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def deliver():
        free_at = 0.0
        while True:
            due, data = await queue.get()
            if data is None:
                break
            free_at = max(free_at, due) + len(data) * per_byte
            wait = free_at - loop.time()
            if wait > 0.0005:
                await asyncio.sleep(wait)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    task = asyncio.create_task(deliver())
    try:
        while True:
            data = await reader.read(CHUNK)
            if not data:
                break
            count[way] += len(data)
            total = count[0] + count[1]
            if args.cut_after_bytes and total >= args.cut_after_bytes:
                print(f"cut after {total} bytes", flush=True)
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                break
            if args.stall_after_bytes and total >= args.stall_after_bytes:
                print(f"stalled after {total} bytes", flush=True)
                await asyncio.sleep(3600)
            queue.put_nowait((loop.time() + delay, data))
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    queue.put_nowait((loop.time() + delay, None))
    try:
        await task
    except (ConnectionError, RuntimeError, OSError):
        pass


async def main():
    args = parse()
    host, port = args.to.rsplit(":", 1)

    async def handle(reader, writer):
        try:
            up_reader, up_writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
        except OSError as error:
            print(f"cannot reach {args.to}: {error}", file=sys.stderr)
            writer.close()
            return
        for w in (writer, up_writer):
            w.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        count = [0, 0]
        await asyncio.gather(one_way(reader, up_writer, args, count, 0), one_way(up_reader, writer, args, count, 1))
        for w in (writer, up_writer):
            w.close()
        print(f"closed: {count[0]} bytes to the server, {count[1]} bytes back", flush=True)

    lhost, lport = args.listen.rsplit(":", 1)
    server = await asyncio.start_server(handle, lhost, int(lport), limit=1 << 24)
    lport = server.sockets[0].getsockname()[1]
    print(f"listening on {lhost}:{lport}, to {args.to}", flush=True)
    async with server:
        await server.serve_forever()


try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
