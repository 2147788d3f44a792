# SPDX-License-Identifier: GPL-3.0-or-later
"""An xDS server for the Envoys of one mesh: aggregated discovery of clusters, endpoints, listeners and routes."""
