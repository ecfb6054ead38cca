"""Which fields of a number's protocol may differ between numbers that are compared."""

# Fields that describe the model and how it was run: numbers that differ in them alone may be compared.
OWN = {
    "metric",
    "nfe",
    "sampler",
    "guidance",
    "seed",
    "seeds",
    "checkpoint",
    "weights",
    "kind",
    "bound",
    "likelihood_nfe",
}
PER_MODEL = {"sampler", "guidance", "weights"}  # what the seeds of one model must share besides
MACHINE = {"device", "threads", "batch"}  # the conditions of a timing, which change no other number
