import os

ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
FILES = os.environ["FILES"]
INSTALLED_APPS = ["django.contrib.sessions", "django.contrib.messages"]
LOGGING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django.request": {"handlers": ["console"]}},
}
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "django_site.urls"
SECRET_KEY = "not a secret, but long enough to be taken for one: 0123456789"
SESSION_ENGINE = "django.contrib.sessions.backends.file"
SESSION_FILE_PATH = os.environ["SESSIONS"]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [
                (
                    "django.template.loaders.locmem.Loader",
                    {
                        "form.html": "<form>{% csrf_token %}{{ form }}</form>",
                        "404.html": "<h1>No {{ request_path }} here</h1>",
                        "500.html": "<h1>Something is broken</h1>",
                    },
                )
            ]
        },
    }
]
TIME_ZONE = "UTC"
WSGI_APPLICATION = "django_site.wsgi.application"
