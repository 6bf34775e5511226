"""The software bill of materials (CycloneDX) and the table of SOUP (IEC 62304) of an installation.

    python -m benchmarks.sbom sbom.json --bundle BUNDLE --soup soup.md

Both say what is installed where this runs. It needs pulse-edge[sbom].
"""
