"""Writes the tiny model and serves it with llama.cpp: python llamacpp_server.py FILE PORT KEY."""

import sys
import threading

import xllamacpp
from gguf_file import write_gguf
from tiny_model import WINDOW

path, port, key = sys.argv[1:]
write_gguf(path)
parameters = xllamacpp.CommonParams()
parameters.model.path = path
parameters.model_alias = {"tiny"}
parameters.hostnames = ["127.0.0.1"]
parameters.port = int(port)
parameters.api_keys = [key]
parameters.n_ctx = WINDOW
parameters.n_parallel = 2
parameters.use_jinja = True
parameters.warmup = False
parameters.endpoint_slots = True
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(parameters)
threading.Event().wait()
