"""The page: static files, served as they lie here, and the policy they are served under."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent
"""`index.html` is the answer to `/`; `style.css`, `favicon.svg`, `app/` and `vendor/` lie under their own names."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # The page writes no HTML at all, so no policy may: what a model says can become text, never markup.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-cache",  # asked again each time, so that an upgraded node never runs with an old page
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""For every file under ROOT."""
