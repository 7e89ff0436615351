"""Asks in batches: many requests handed over at once, answered within a day at half the price.

A batch outlives the process that handed it over, so each step of its life is durable before the next: the intent with
every call's promise in one transaction, the handing over, the provider's name for it, each result settled and stored in
one transaction, the end. A batch is handed over once: after a crash in between it is looked for at the provider by our
name, and its calls are freed only when the provider's list has been seen whole, a while later, without it.
"""
