"""One detector on one task, from what was asked for to a folder of tables.

Knows no board and no page.

For other packages: spec, job, execute, finished, stored, grid, sweep, executor,
ray_pool, config, config_writer, price, devices, nearest, images, places.
"""
